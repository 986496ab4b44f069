"""What people do: each action poses a figure at one moment of one take."""
