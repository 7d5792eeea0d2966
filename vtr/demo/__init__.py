"""The synthetic world and the tiny CLIP that ships with the package."""
