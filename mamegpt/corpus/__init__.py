"""How documents are read, chosen, cleaned and written; `sources`, `extract` and `clean` say what is done with it."""
