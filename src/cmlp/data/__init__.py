"""What people have becomes checked rows."""
