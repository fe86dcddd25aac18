// A fixed set of workers that share one loop at a time. Knows nothing of what it runs.
#ifndef VLMRM_THREAD_POOL_H_
#define VLMRM_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace vlmrm {

class ThreadPool {
 public:
  // The caller's thread is worker 0, so num_threads - 1 threads are started. Throws
  // std::system_error, with none left running, if the system refuses one.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls body(worker, i) for each i in [0, count) and returns when all are done. What a call
  // throws ends the loop and is thrown here, the first of several. Calls from several threads take
  // turns.
  void run(int count, const std::function<void(int worker, int i)>& body);

 private:
  void work(int worker);
  void take(int worker);
  void stop();  // ends and joins the workers

  std::vector<std::thread> threads_;
  std::mutex turn_, mutex_;
  std::condition_variable start_, done_;
  const std::function<void(int, int)>* body_ = nullptr;
  std::exception_ptr error_;
  std::atomic<int> next_{0};
  int count_ = 0;
  int running_ = 0;
  unsigned round_ = 0;
  bool stop_ = false;
};

}  // namespace vlmrm

#endif  // VLMRM_THREAD_POOL_H_
