"""What the system does, one file for each noun; nothing here knows HTTP."""
