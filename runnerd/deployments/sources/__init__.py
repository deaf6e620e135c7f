"""The code sources of deployments: pulled as the deployment's user, one tree for each version."""
