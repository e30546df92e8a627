"""One file per situation, named by what people say; toolbox/ holds the facts and fixes they share."""
