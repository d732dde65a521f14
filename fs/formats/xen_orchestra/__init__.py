"""Backup repositories of Xen Orchestra ("remotes"): VM disks, whole VMs, configurations."""
