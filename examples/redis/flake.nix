{
  description = "Redis, from Debian's redis-server";

  # mvmctl puts its own guest library here when it builds.
  inputs.mvm.url = "path:../../nix";

  outputs = { self, mvm }: {
    packages.x86_64-linux.default = mvm.lib.mkGuest {
      pkgs = mvm.hostPkgs.x86_64-linux;
      debianLock = ./debian.lock;
      name = "redis";
      packages = [ "redis-server" ];

      files."/etc/redis/mvm.conf" = ./redis.conf;
      users.redis.uid = 200;

      services.redis = {
        command = [ "redis-server" "/etc/redis/mvm.conf" ];
        user = "redis";
        directories = [ "/var/lib/redis" ];
      };

      healthChecks.ping = {
        healthTcp = "127.0.0.1:6379";
        healthSend = "PING\r\n";
        healthExpect = "+PONG";
        healthIntervalSecs = 2;
        healthTimeoutSecs = 5;
      };
    };
  };
}
