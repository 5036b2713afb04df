"""Training on several ranks: processes that `torchrun` starts, one for each GPU.

Everything here is PyTorch's own (DistributedDataParallel, FSDP2, Distributed Checkpoint) and is put on the model from
outside: the model, its loss and the objectives know nothing of it.
"""
