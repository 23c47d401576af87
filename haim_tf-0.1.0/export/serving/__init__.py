"""An exported model behind Ray Serve: tensorflow and Ray are all that it needs."""
