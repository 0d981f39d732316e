# The guest agent's binary for a system. It lies in this directory so that evaluation stays pure.
{ system }:
let
  binary = ./agent + "/${system}/mvm-agent";
in
if builtins.pathExists binary then "${binary}"
else throw "mkGuest: the guest agent for ${system} is missing (nix/agent/${system}/mvm-agent): run 'npm run setup' in a clone of mvmctl, or reinstall the mvmctl package"
