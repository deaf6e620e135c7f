"""What the control API's routes call: the running daemon behind the contract in control/contract.py."""
