"""Station series: ISMN, TERENO, tables and matrices."""
