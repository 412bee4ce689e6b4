"""The HTTP application in front of BentoML's: authentication, limits, errors, API description."""
