"""Facts and fixes that several handlers share. No handlers are found here."""
