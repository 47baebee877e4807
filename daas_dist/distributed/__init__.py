"""How ranks find each other, share work, and agree."""
