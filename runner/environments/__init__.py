"""Python environments below the state folder, for engines that cannot live beside the server. Server half only."""
