"""Planning: what a run will take of memory, time, energy and money, before it is started."""
