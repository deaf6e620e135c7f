"""The implementation of control/contract.py by the parts of the running daemon."""
