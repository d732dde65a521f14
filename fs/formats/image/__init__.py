"""Disk images anywhere in a repository: raw, VHD, VHDX, qcow2 and VMDK, also compressed."""
