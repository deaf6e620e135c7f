"""What tests share: fakes, harnesses, values."""
