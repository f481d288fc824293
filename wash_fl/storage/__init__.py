"""What is kept on a disk: the server's journal in SQLite, named arrays in safetensors."""
