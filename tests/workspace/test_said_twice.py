"""What packages that may not import each other both have to know is the same in all of them."""

import rushlight_data.start as data
import rushlight_distributed.mpi as distributed
import rushlight_launch.mpi as launch


def test_all_know_a_rank_by_the_same_variables():
    assert distributed._RANKS == launch.RANK_VARIABLES == data._LAUNCHED


def test_no_rank_variable_reaches_a_process_that_is_no_rank():
    for name in distributed._RANKS:
        assert name.startswith(launch._OF_A_JOB)
        assert name.startswith(data._MPI_VARIABLES)
        assert name not in launch.environment({name: "1"}, 1)


def test_open_mpi_gets_the_same_settings_with_and_without_the_launcher():
    assert {k: v for k, v in launch._OPEN_MPI.items() if k.startswith("OMPI_MCA_")} == distributed._OPEN_MPI
