// The command line of the program.
#pragma once

namespace kvbm::app {

// Exit codes: 0 nothing was wrong, 1 something was (the command's help says what), 2 bad input or a
// failure of the system, told in one line on standard error.
int run_cli(int argc, const char* const* argv);

}  // namespace kvbm::app
