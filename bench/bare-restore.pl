#!/usr/bin/perl
# The bare tool: restores a QEMU snapshot and wakes its guest with nothing around it, as a careful person's script would.
# Usage: bare-restore.pl DIRECTORY VMSTATE BODY QEMU ARGUMENT...
# Ends when the guest's agent has answered that it is awake; QEMU goes on. With BODY "-", when it has answered the handshake.
use strict;
use warnings;
use Socket;
use Time::HiRes qw(sleep);

my ($directory, $vmstate, $body, @qemu) = @ARGV;
chdir $directory or die "$directory: $!";
# Perl closes descriptors above $^F at exec, and below it a handle that is opened again keeps its number.
$^F = 16;
open(my $state, '<', $vmstate) or die "$vmstate: $!";

my $pid = fork() // die "fork: $!";
if ($pid == 0) {
    setpgrp;
    open(STDIN,  '<',  '/dev/null');
    open(STDOUT, '>>', 'hypervisor.log');
    open(STDERR, '>>', 'hypervisor.log');
    if (fileno($state) != 3) {
        my $three;
        open($three, '<&=', 3) or open($three, '<', '/dev/null') or die "descriptor 3: $!";
        open($three, '<&', $state) or die "descriptor 3: $!";
        die 'descriptor 3 is another one' if fileno($three) != 3;
    }
    exec @qemu or kill 'KILL', $$;
}

sub connect_to {
    my ($path) = @_;
    for (1 .. 5000) {
        socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
        return $socket if connect($socket, pack_sockaddr_un($path));
        sleep 0.002;
    }
    die "nobody listens on $path";
}

my $qmp = connect_to('qmp.sock');

sub execute {
    my ($command, $arguments) = @_;
    syswrite $qmp, qq({"execute":"$command","arguments":$arguments}\n);
    while (my $line = <$qmp>) {
        return $line if $line =~ /"(return|error)":/;
    }
    die 'QEMU is gone';
}

execute('qmp_capabilities',         '{}');
execute('migrate-set-capabilities', '{"capabilities":[{"capability":"x-ignore-shared","state":true}]}');
execute('migrate-incoming',         '{"uri":"fd:3"}');
while (execute('query-status', '{}') =~ /inmigrate/) { sleep 0.002 }
execute('cont', '{}');

my $agent = connect_to('agent0.sock');
my $nonce = "bare$$";
my ($greeting, $expected) = $body eq '-'
    ? ("CONNECT 52 $nonce\n", qr/OK $nonce\n/)
    : ("WAKE 52 $nonce " . length($body) . "\n$body", qr/AWAKE $nonce \d+\n/);
syswrite $agent, $greeting;
my $answer = '';
while ($answer !~ $expected) { sysread($agent, $answer, 4096, length $answer) or die 'the agent is gone' }
