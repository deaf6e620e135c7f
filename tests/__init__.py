"""Tests of runnerd; tests/kits holds what they share."""
