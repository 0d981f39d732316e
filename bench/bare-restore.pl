#!/usr/bin/perl
# The bare tool: restores a QEMU snapshot and wakes its guest with nothing around it, as a careful person's script would.
# Usage: bare-restore.pl DIRECTORY VMSTATE BODY QEMU ARGUMENT...
# Ends when the guest's agent has answered `wake`; QEMU goes on. With BODY "-", when the agent has answered the handshake.
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
syswrite $agent, "CONNECT 52 $nonce\n";
my $answer = '';
while ($answer !~ /OK $nonce\n/) { sysread($agent, $answer, 4096, length $answer) or die 'the agent is gone' }
exit 0 if $body eq '-';

# HTTP/2 by hand (RFC 9113): preface, empty SETTINGS, HEADERS of literals (RFC 7541, section 6.2.2), DATA.
sub frame {
    my ($type, $flags, $stream, $payload) = @_;
    return substr(pack('N', length $payload), 1) . pack('CCN', $type, $flags, $stream) . $payload;
}

sub literal {
    my ($name, $value) = @_;
    return "\x00" . chr(length $name) . $name . chr(length $value) . $value;
}
my $headers = join '', literal(':method', 'POST'), literal(':scheme', 'http'), literal(':path', '/v1/wake'), literal(':authority', 'agent');
syswrite $agent, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . frame(4, 0, 0, '') . frame(1, 4, 1, $headers) . frame(0, 1, 1, $body);

my $bytes = '';
for (;;) {
    sysread($agent, $bytes, 16384, length $bytes) or die 'the agent is gone';
    while (length $bytes >= 9) {
        my $length = unpack('N', "\0" . substr($bytes, 0, 3));
        last if length $bytes < 9 + $length;
        my ($type, $flags, $stream) = unpack('CCN', substr($bytes, 3, 6));
        exit 0 if $type == 1 && $stream == 1;
        substr($bytes, 0, 9 + $length, '');
    }
}
