"""What every layer needs and that needs no other layer: errors, files, devices, seeds, progress, plug-ins."""
