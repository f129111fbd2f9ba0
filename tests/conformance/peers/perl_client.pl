# A client of Perl's Gearman::Client: HOST:PORT, the function and the payload.
use strict;
use warnings;
use Gearman::Client;

my ($address, $function, $payload) = @ARGV;
binmode STDIN;
binmode STDOUT;
if ($payload eq '-') {
    local $/;
    $payload = <STDIN> // '';
}
my $client = Gearman::Client->new(job_servers => [$address], exceptions => 1);
my $result = $client->do_task($function, \$payload, { timeout => 10 });
die "the job has not completed\n" unless defined $result;
print $$result;
