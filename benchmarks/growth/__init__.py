"""How cost grows with the work: each subject at four sizes, with an exponent and its peak memory."""
