"""Control of what is generated: constraints that always hold, and means that shift the odds."""
