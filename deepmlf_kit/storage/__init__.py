"""Storage: files and folders written whole or not at all, locks on them, and what disks and names can refuse."""
