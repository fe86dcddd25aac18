#include "thread_pool.h"

#include <utility>

namespace vlmrm {

ThreadPool::ThreadPool(int num_threads) {
  try {
    for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this, i] { work(i); });
  } catch (...) {
    // No destructor runs for a half-made pool, and the members must outlive the threads.
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void ThreadPool::take(int worker) {
  try {
    for (int i = next_.fetch_add(1); i < count_; i = next_.fetch_add(1)) (*body_)(worker, i);
  } catch (...) {
    next_ = count_;
    std::lock_guard<std::mutex> lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

void ThreadPool::work(int worker) {
  unsigned seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    start_.wait(lock, [&] { return stop_ || round_ != seen; });
    if (stop_) return;
    seen = round_;
    lock.unlock();
    take(worker);
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

void ThreadPool::run(int count, const std::function<void(int, int)>& body) {
  std::lock_guard<std::mutex> turn(turn_);
  body_ = &body;
  count_ = count;
  next_ = 0;
  if (threads_.empty() || count < 2) {
    take(0);
  } else {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      running_ = static_cast<int>(threads_.size());
      ++round_;
    }
    start_.notify_all();
    take(0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return running_ == 0; });
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace vlmrm
