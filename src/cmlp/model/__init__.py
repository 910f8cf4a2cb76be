"""What a network is: layers, parameters, optimizer state, passes through the core."""
