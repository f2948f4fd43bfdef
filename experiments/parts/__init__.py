"""What the commands are made of: a folder a command, and what all of them share."""
