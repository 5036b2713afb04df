"""The endpoints: what is read, and what is answered, a file for each."""
