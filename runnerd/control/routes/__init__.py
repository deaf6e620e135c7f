"""The handlers of the control API: which paths there are, what each request may contain, and its answer."""
