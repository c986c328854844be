"""One module per outside thing; each translates foreign errors at its door.

Heavy packages (torch, sentence-transformers, datasets, hdbscan, openai) are imported inside
functions, so that definitions load in a second or two.
"""
