"""A network of one's own on one machine: slow, lossy or cut links between a server and its devices."""
