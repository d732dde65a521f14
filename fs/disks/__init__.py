"""Disk images whose bytes the gateway itself finds: VHD files and directories, and their chains."""
