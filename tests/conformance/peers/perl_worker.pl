# A worker of Perl's Gearman::Worker: the argument is HOST:PORT. A signal ends it.
use strict;
use warnings;
use Gearman::Worker;

my $worker = Gearman::Worker->new(job_servers => [$ARGV[0]]);
$worker->register_function(reverse => sub { scalar reverse $_[0]->arg });
# Without a result it sends WORK_FAIL. After `die` it would send WORK_EXCEPTION and then WORK_FAIL, for
# which gearmand has an error, as the job has ended already; and that ends this worker.
$worker->register_function(fail => sub { return });
$worker->register_function(
    progress => sub {
        my ($job) = @_;
        $job->set_status(1, 2); # send_work_status of the worker leaves the 2 away.
        $worker->send_work_data($job, 'half');
        return $job->arg;
    }
);
$worker->register_function(
    slow => sub {
        select undef, undef, undef, 0.5;
        return $_[0]->arg;
    }
);
$worker->work while 1;
