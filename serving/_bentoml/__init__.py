"""Everything that depends on parts of BentoML and its libraries which they do not publish."""
