"""The HTTP application in front of BentoML's application: `app.py` describes it."""
