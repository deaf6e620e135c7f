"""The paths of the control API, a file a group of resources."""
