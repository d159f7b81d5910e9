"""Pictures of environments, rendered without a screen."""
