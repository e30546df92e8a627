"""The nouns of opsbot: pure, standard library only."""
