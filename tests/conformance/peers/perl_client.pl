# A client of Perl's Gearman::Client: HOST:PORT, the function and payloads.
use strict;
use warnings;
use Gearman::Client;

my ($address, $function, @payloads) = @ARGV;
binmode STDIN;
binmode STDOUT;
my $client = Gearman::Client->new(job_servers => [$address], exceptions => 1);
my $tasks = $client->new_task_set;
my @results;
for my $number (0 .. $#payloads) {
    my $payload = $payloads[$number];
    if ($payload eq '-') {
        local $/;
        $payload = <STDIN> // '';
    }
    $tasks->add_task($function, \$payload, {
        timeout => 10,
        on_complete => sub { $results[$number] = ${ $_[0] } },
    });
}
$tasks->wait;
for my $number (0 .. $#payloads) {
    die "the job has not completed\n" unless defined $results[$number];
}
print join("\n", @results);
