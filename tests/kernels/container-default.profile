# A profile with what matters here of those that container runtimes give to every container
# without a word in its manifest: files, network and capabilities are free, mounts are not, and
# of other processes only those under the same profile may be read.
profile container-default flags=(attach_disconnected, mediate_deleted) {
  capability,
  network,
  file,
  umount,
  signal,
  deny mount,
  ptrace (read, readby, trace, tracedby) peer=container-default,
}
