"""Files of any number of cells answered about, and any number of cells written, in pieces that are kept until all are done."""
