"""Pictures of environments, without a screen."""
