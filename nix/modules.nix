# The kernel modules of the initrd. What a kernel has built in, or has not got, is skipped when the initrd is made.
{ rootfsType, kernelModules }:
let
  # In the order of need: the disk first, so that the root image can be mounted as soon as possible.
  base = [
    "virtio_mmio"
    "virtio_blk"
    "overlay"
    "virtio_console" # the agent's ports under QEMU
    "virtio_net"
    "virtio_rng"
    "vmw_vsock_virtio_transport" # the agent's stream under Firecracker
    "ext4" # the data disk
  ];
  fileSystems = [ "erofs" "squashfs" ];
in
{
  # Kept with the kernel: the same for all images that ask for the same extra modules.
  all = base ++ fileSystems ++ kernelModules;
  loaded = [ rootfsType ] ++ base ++ kernelModules;
}
