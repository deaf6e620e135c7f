"""Polling the API for due runs and for cancellations; late runs."""
